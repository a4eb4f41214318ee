"""``sfr_doctor``: looks at installation, machine and data set, and says what would stop or falsify a run.

Every check is a function that returns findings and writes nothing; one module for each group of them.
"""
