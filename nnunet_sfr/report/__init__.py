"""One page that shows what SFR made of a data set: pseudo-labels, confidences, rounds, trainings."""
