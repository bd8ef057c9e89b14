"""Tools in the hand: brush, paint, ruler, cut line."""
