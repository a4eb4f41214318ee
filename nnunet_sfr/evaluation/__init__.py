"""How good predictions are: overlap, surface distances in millimetres, and two folders compared case by case."""
