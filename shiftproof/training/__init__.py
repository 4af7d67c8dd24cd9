"""How training runs: the loop, its steps, saved states, several processes, and what it will take."""
