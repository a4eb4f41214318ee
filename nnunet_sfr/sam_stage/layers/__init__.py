"""Parts of networks that more than one image encoder or adaptation uses."""
