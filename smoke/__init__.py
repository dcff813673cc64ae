"""What nobody can know without a deployed stack, asked of one: `make smoke`, or `python -m smoke --help`.

`facts` is the table of what this project takes for true of AWS, `checks` how each is asked, `charge` the last of them:
the whole story of one charge. It runs against the stack on a laptop too, where what only AWS can show says so.
"""
