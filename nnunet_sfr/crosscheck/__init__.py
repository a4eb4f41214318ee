"""How good SAM's labels will be: labelled cases that are left out of its fine-tuning and then labelled."""
