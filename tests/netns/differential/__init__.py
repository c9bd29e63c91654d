"""The same configuration given to a reference plugin and to podwire started under its name.

`cases` is the table of configurations, `world` executes one, `facts` turns what came of it into
comparable lines, `differences` lists every line that may differ, and why.
"""
