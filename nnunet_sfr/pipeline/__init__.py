"""``sfr_run``: the public commands one after the other, each in a process of its own, from images to a trained model.

Nothing here imports torch or nnU-Net, so that a call that has nothing to do answers at once.
"""
