"""The command line as a module, so that Fabric can start it again per process."""

from crack_md.cli import main

if __name__ == "__main__":
    main()
