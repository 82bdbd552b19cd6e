"""The web console: pages for people over the same queries as the API. Rendered here; no third-party asset, no inline
script or style.

A part of the console is a module with a `Pages`, listed in `api/console/parts.py` (one line). In it:

    pages = Pages("banks", Nav("Banks", "/console/banks", icon="bank", role="viewer", order=40))

    @pages.page("GET", "/console/banks", role="viewer", title="Banks", query=BanksQuery)
    def index(call: PageCall, query: BanksQuery) -> Response:
        with call.transaction() as session:                        # the account's: row-level security holds
            found = banks.page(session, call.account_id, …)
        return render(call, "banks.html", banks=found)             # templates/banks.html extends layout.html

    @pages.page("POST", "/console/banks/<uuid:bank_id>/off", role="curator")
    def off(call: PageCall, bank_id: UUID) -> Response:
        asked = call.checked(OffForm)                               # a pydantic `Form`; Problem `invalid_form`
        with call.transaction() as session:
            banks.switch_off(session, call.account_id, bank_id, asked.reason, actor=call.actor)
        return redirect(call, "/console/banks", "The bank is off.")  # 303, and the message on the next page

- `role` has no default: `viewer`, `reviewer`, `curator`, `admin` (each may what those before it may), `operator` (the
  installation's pages), or None: public. Who is not signed in goes to the sign-in page.
- Every method but GET and HEAD is checked for its origin and for the session's token before the view runs: write
  `{{ csrf }}` into each `<form method="post">`; scripts send the header `X-CSRF-Token` (`<html data-csrf>`), with a
  form or with JSON (`call.json()`).
- `Problem` and `DbError` become error pages, or problem documents for whoever accepts JSON. NotFound, also for what
  belongs to another account, is 404.
- `call.person` (id, name, role, operator), `call.actor` (`user:<id>`), `call.account_id`, `call.settings`.
- `api.console.charts` draws SVG; `api.console.pictures.url` gives a picture's address, `.GRANTED` is told of each that
  somebody asks to see clear; templates/parts.html has badges, fields, pagers and empty states.
- A page's own script or style is a file in static/, named in the template's blocks:
  `{% block scripts %}<script src="{{ asset('banks.js') }}" defer></script>{% endblock %}`.
"""
