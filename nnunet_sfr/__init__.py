"""SFR and SFR+ for nnU-Net v2: semi-supervised segmentation with SAM's pseudo-labels.

Importing this package imports neither torch nor nnU-Net, so that commands answer ``-h`` at once.
"""

import os

__version__ = "0.2.0"

# A wheel holds entry_points/ inside this package; in a checkout it lies beside it. Finding it here lets an editable
# install be a plain path, where setuptools' import hook would cost every Python start of the environment 13 ms.
_checkout = os.path.dirname(__path__[0])
if os.path.isfile(os.path.join(_checkout, "entry_points", "command_line.py")):
    __path__.append(_checkout)
