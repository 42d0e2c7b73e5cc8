"""How much was used: by whom, through which door, with which model."""
