"""A folder of plain files that shows slides, layers and annotations without a server."""

from lamella.view.server.export.site import export_site

__all__ = ["export_site"]
