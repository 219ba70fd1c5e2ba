"""Names that earlier answers of the API showed, so that error messages can name what an id stands for."""


class KnownNames:
    """Names of instances by id, and of volumes by handle."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def remember(self, reference: str, name: str) -> None:
        """Keep the name that an answer showed."""
        self._names[reference] = name

    def describe(self, reference: str) -> str:
        """Return "name (id)", or the id alone while the name is not known. The console is searched by id."""
        name = self._names.get(reference)
        return f"{name} ({reference})" if name else reference
