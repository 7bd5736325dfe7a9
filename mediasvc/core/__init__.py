"""The language of the house: values and rules, standard library only, no I/O."""
