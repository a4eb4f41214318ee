"""The folder that ``nnUNet_extTrainer`` lists; nnU-Net imports the modules in it one by one by their bare names."""
