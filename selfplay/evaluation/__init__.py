"""How strong a player is: matches from listed openings, exact play, ratings with an interval."""
