"""Reasoning with verifiable rewards: the loop, the learner and its algorithms."""
