"""A browser without a screen for the console's tests: cookies, the token of the forms, and pages parsed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from db import people, sessions
from db.people import Person
from db.session import Database
from tests.conftest import TestAccount

OWN = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Element:
    """A start tag, its attributes, and the text up to the next tag."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


class Page(HTMLParser):
    """The elements of a page in their order; what a browser would make of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.elements:
            self.elements[-1].text += data

    def all(self, tag: str, **wanted: str) -> list[Element]:
        """The elements of this tag with these attributes."""
        return [
            each for each in self.elements
            if each.tag == tag and all(each.attributes.get(name) == value for name, value in wanted.items())
        ]  # fmt: skip

    def hidden(self, name: str) -> str:
        """The value of the first hidden field of this name."""
        return str(self.all("input", type="hidden", name=name)[0].attributes["value"])


@dataclass
class Browser:
    """A client with cookies; `person` is who signed in."""

    client: FlaskClient
    person: Person | None = None
    headers: dict[str, str] = field(default_factory=lambda: dict(OWN))

    def get(self, path: str, **given: Any) -> TestResponse:
        return self.client.get(path, **given)

    def page(self, path: str, status: int = 200) -> Page:
        """The page, parsed."""
        answer = self.client.get(path)
        assert answer.status_code == status, (answer.status_code, answer.text[-1500:])
        return Page(answer.text)

    @property
    def csrf(self) -> str:
        """The token of this browser's forms."""
        path = "/console/own" if self.person is not None else "/console/sign-in"
        return self.page(path).hidden("csrf")

    def post(self, path: str, fields: dict[str, Any] | None = None, *, json: bool = False) -> TestResponse:
        """Send a form as a page of ours would; with `json`, as a script of ours would."""
        headers = self.headers | ({"Accept": "application/json"} if json else {})
        return self.client.post(path, data={"csrf": self.csrf, **(fields or {})}, headers=headers)


def somebody(database: Database, account: TestAccount, name: str, role: str = "viewer", **given: Any) -> Person:
    """A new person of the account; `operator`, `password_hash`, `email` as given."""
    operator = given.pop("operator", False)
    with database.transaction() as session:
        person = people.create(session, account.id, name, role=role, actor="test", **given)
        if operator:
            people.set_operator(session, person, True, actor="test")
        return people.get(session, account.id, person.id)


def signed_in(app: Flask, database: Database, person: Person) -> Browser:
    """A browser in which this person is signed in."""
    with database.transaction() as session:
        token = sessions.begin(session, person, means="link", address="127.0.0.1", agent="test", hours=1)
    client = app.test_client()
    client.set_cookie("tagmill-session-80", token, domain="localhost")
    return Browser(client, person)
