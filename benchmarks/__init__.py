"""Programs that measure maam and make the tables of the documentation; they are not part of the installed package."""
