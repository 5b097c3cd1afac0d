"""Value: how much a learner step on a token, sample or domain would lower the feedback loss."""
