"""The search of hyperparameters: what is proposed, how long it is trained, and where it runs."""
