"""The smoke test: checks on a deployed stack of what cannot be known before. `make smoke`, or `python -m smoke --help`.

`facts` is the table of what this project assumes about AWS, `checks` has the check of each, and `charge` the last of
them: one complete charge. It also runs against the stack on a laptop, where facts that only AWS can show are reported
as not testable.
"""
