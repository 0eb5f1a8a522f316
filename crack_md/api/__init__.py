"""What the commands do, as functions: ``from crack_md import screen, relax, run_md``.

Every function takes structures (a file, a folder, `ase.Atoms` or a list of them) and
any ASE calculator, writes the files of the command of its name into the folder ``out``,
and goes on where a stopped run in that folder ended. Its words are those of the
command: ``--max-sites 3`` is ``max_sites=3``.
"""
