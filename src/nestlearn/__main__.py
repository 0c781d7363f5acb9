"""``python -m nestlearn``, and ``torchrun -m nestlearn train``: the command line, where a module is asked for."""

__all__: list[str] = []

if __name__ == "__main__":
    from nestlearn.cli.main import main

    main()
