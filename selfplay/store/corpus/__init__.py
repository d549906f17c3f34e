"""One version of a corpus as its readers use it: as SQL, for torch and Ray, newest first, with where it came from."""
