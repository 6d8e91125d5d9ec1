"""The actions of the control socket that show what a site does."""
