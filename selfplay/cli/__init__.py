"""The front door: one file a verb, imported when the verb is used."""
