"""What the networks of several sciences share: many small models trained as one tensor program."""
