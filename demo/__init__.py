"""The demonstration: a data set, the public commands on it, a table and a picture."""
