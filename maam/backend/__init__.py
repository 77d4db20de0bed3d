"""What a framework provides to maam, and what is shared by all frameworks."""
