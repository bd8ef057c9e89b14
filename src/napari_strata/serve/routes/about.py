"""What the server is and offers, and how a client signs in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from napari_strata._version import __version__
from napari_strata.errors import ServeError
from napari_strata.serve.routes.requests import form_of, service_of, state_of

router = APIRouter()


@router.get("/")
def index() -> dict[str, Any]:
    """Return what this is."""
    return {
        "name": "Strata",
        "version": __version__,
        "protocol": "MONAI Label",
        "info": "/info/",
    }


@router.get("/info/")
def info(request: Request) -> dict[str, Any]:
    """Return models, labels and images."""
    return service_of(request).info()


@router.get("/auth/")
def is_token_needed(request: Request) -> dict[str, Any]:
    """Return whether requests need a token."""
    return {
        "enabled": bool(state_of(request).access.token),
        "client_id": "",
        "realm": "",
    }


@router.post("/auth/token")
async def sign_in(request: Request) -> dict[str, Any]:
    """Return the token to a client whose password is the token."""
    access = state_of(request).access
    if not access.token:
        return {"access_token": None, "token_type": None}
    password = (await form_of(request)).get("password")
    if not isinstance(password, str) or not access.is_token(password):
        raise ServeError("Wrong password. The password is the server's token.", 401)
    return {"access_token": access.token, "token_type": "bearer"}


@router.get("/auth/token/valid")
def is_signed_in() -> dict[str, Any]:
    """Return who signed in; without a valid token nobody comes here."""
    return {"username": "user", "email": None, "name": None, "roles": []}
