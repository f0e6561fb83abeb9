"""The story of README and docs/api.md, with the client that openapi-python-client generates.

``PYTHONPATH=build/python python story.py http://localhost:8000``
"""

import re
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from phresh_client import AuthenticatedClient, Client
from phresh_client.api.cleanings import (
    create_cleaning,
    delete_cleaning,
    get_cleaning,
    list_cleanings,
    update_cleaning_patch,
)
from phresh_client.api.evaluations import create_evaluation, get_stats
from phresh_client.api.feed import list_events
from phresh_client.api.offers import (
    accept_offer,
    create_offer,
    delete_offer,
    list_my_offers,
    list_offers,
)
from phresh_client.api.profiles import get_profile
from phresh_client.api.users import (
    begin_two_factor,
    confirm_email,
    confirm_two_factor,
    create_token,
    create_user,
    delete_other_sessions,
    delete_session,
    delete_token,
    delete_two_factor,
    export_me,
    get_me,
    list_sessions,
    recover_account,
    request_recovery,
)
from phresh_client.models import (
    Cleaning,
    CleaningCreate,
    CleaningCreateBody,
    CleaningSort,
    CleaningStatus,
    CleaningType,
    CleaningUpdate,
    CleaningUpdateBody,
    Confirmation,
    ConfirmationBody,
    Evaluation,
    EvaluationCreate,
    EvaluationCreateBody,
    Event,
    EventType,
    Export,
    Login,
    Offer,
    OfferCreate,
    OfferCreateBody,
    OfferStatus,
    Problem,
    Profile,
    PublicUser,
    Recovery,
    RecoveryBody,
    RecoveryRequest,
    RecoveryRequestBody,
    Session,
    Stats,
    Token,
    TwoFactor,
    TwoFactorBody,
    TwoFactorSecret,
    User,
    UserCreate,
    UserCreateBody,
)
from phresh_client.types import UNSET, Unset

T = TypeVar("T")

BASE_URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
PASSWORD = "four cats on a roof"
run = uuid4().hex[:8]
anyone = Client(base_url=BASE_URL)


def got(kind: type[T], parsed: object) -> T:
    """Return what the server sent if it is of this type; a problem is shown otherwise."""
    assert isinstance(parsed, kind), parsed
    return parsed


def new_user(name: str) -> UserCreateBody:
    """Return the body of a registration."""
    username = f"{name}-{run}"
    email = f"{username}@phresh.example"
    return UserCreateBody(UserCreate(email=email, username=username, password=PASSWORD))


def log_in(body: UserCreateBody) -> AuthenticatedClient:
    """Register, log in, and return a client that sends the token."""
    registered = create_user.sync_detailed(client=anyone, body=body)
    assert registered.status_code is HTTPStatus.CREATED
    login = Login(username=body.new_user.email, password=PASSWORD)
    token = got(Token, create_token.sync(client=anyone, body=login))
    assert token.expires_in > 0
    return AuthenticatedClient(base_url=BASE_URL, token=token.access_token)


def next_page(headers: Mapping[str, str]) -> str | None:
    """Return the cursor of the next page, or None after the last one."""
    link = re.search(r'<([^>]*)>; *rel="next"', headers.get("Link", ""))
    return parse_qs(urlsplit(link[1]).query)["after"][0] if link else None


def problem_of(status: HTTPStatus, parsed: object) -> Problem:
    """Return the problem, which has this status."""
    problem = got(Problem, parsed)
    assert problem.status == status, problem
    return problem


annas, bens, cleos = new_user("anna"), new_user("ben"), new_user("cleo")
anna, ben, cleo = log_in(annas), log_in(bens), log_in(cleos)
anna_name, ben_name, cleo_name = (body.new_user.username for body in (annas, bens, cleos))

# An error is typed as well as what is expected.
problem_of(HTTPStatus.CONFLICT, create_user.sync(client=anyone, body=annas))
wrong = Login(username=annas.new_user.email, password="five cats on a roof")
refused = create_token.sync_detailed(client=anyone, body=wrong)
assert not isinstance(refused.parsed, Token | None)
assert refused.parsed.status == refused.status_code
me = got(User, get_me.sync(client=anna))
assert me.email == annas.new_user.email

# The logins of an account. A registration is one too.
sessions: list[Session] = got(list, list_sessions.sync(client=anna))
assert [session.is_current for session in sessions] == [True, False]
ended = delete_session.sync_detailed(sessions[1].id, client=anna)
assert ended.status_code is HTTPStatus.NO_CONTENT
problem_of(HTTPStatus.NOT_FOUND, delete_session.sync(sessions[1].id, client=anna))
assert delete_other_sessions.sync_detailed(client=anna).status_code is HTTPStatus.NO_CONTENT
assert len(got(list, list_sessions.sync(client=anna))) == 1

# A second factor, which only a right code switches on.
secret = got(TwoFactorSecret, begin_two_factor.sync(client=anna))
assert secret.secret in secret.uri
wrong_code = TwoFactorBody(TwoFactor(code="000000"))
problem_of(HTTPStatus.UNPROCESSABLE_ENTITY, confirm_two_factor.sync(client=anna, body=wrong_code))
removed = delete_two_factor.sync_detailed(client=anna)
assert removed.status_code is HTTPStatus.NO_CONTENT

# Mails, and a link that is not valid.
again = ConfirmationBody(Confirmation(email=annas.new_user.email))
sent = confirm_email.sync_detailed(client=anyone, body=again)
assert sent.status_code is HTTPStatus.NO_CONTENT
forgotten = RecoveryRequestBody(RecoveryRequest(email=annas.new_user.email))
sent = request_recovery.sync_detailed(client=anyone, body=forgotten)
assert sent.status_code is HTTPStatus.NO_CONTENT
expired = RecoveryBody(Recovery(token="x" * 43, password=PASSWORD))
problem_of(HTTPStatus.UNPROCESSABLE_ENTITY, recover_account.sync(client=anyone, body=expired))

# Anyone may post, without a token too. Nobody owns what a guest has posted. The generator's types
# know no optional token.
posted = CleaningCreateBody(CleaningCreate(name=f"Guest {run}", price=29.99))
guest = got(Cleaning, create_cleaning.sync(client=anyone, body=posted))  # type: ignore[arg-type]
assert guest.owner is None
assert guest.price == 29.99


# The same key and the same body: the same cleaning.
def attic_for(price: float) -> CleaningCreateBody:
    """Return the body that posts the attic at this price."""
    return CleaningCreateBody(CleaningCreate(name=f"Attic {run}", price=price))


key = str(uuid4())
created = create_cleaning.sync_detailed(client=anna, body=attic_for(25), idempotency_key=key)
attic = got(Cleaning, created.parsed)
assert created.status_code is HTTPStatus.CREATED
assert urlsplit(created.headers["Location"]).path == f"/api/cleanings/{attic.id}/"
assert got(PublicUser, attic.owner).username == anna_name
assert attic.description is None
assert create_cleaning.sync(client=anna, body=attic_for(25), idempotency_key=key) == attic
problem_of(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    create_cleaning.sync(client=anna, body=attic_for(26), idempotency_key=key),
)

# Lists, page by page.
for name, kind in (("Bath", CleaningType.FULL_CLEAN), ("Cellar", CleaningType.DUST_UP)):
    new = CleaningCreate(name=f"{name} {run}", price=30.5, cleaning_type=kind)
    got(Cleaning, create_cleaning.sync(client=anna, body=CleaningCreateBody(new)))
found: list[Cleaning] = []
pages = 0
after: str | Unset | None = UNSET
while after is not None:
    page = list_cleanings.sync_detailed(
        client=anyone,
        owner=anna_name,
        q=run,
        cleaning_type=list(CleaningType),
        status=CleaningStatus.OPEN,
        price_min=25,
        price_max=40.5,
        sort=CleaningSort("-price"),
        limit=2,
        after=after,
    )
    found += got(list, page.parsed)
    after = next_page(page.headers)
    pages += 1
assert [cleaning.price for cleaning in found] == [30.5, 30.5, 25]
assert pages == 2

# Conditional requests. What was read fits what is sent.
etag = get_cleaning.sync_detailed(attic.id, client=anna).headers["ETag"]
unchanged = get_cleaning.sync_detailed(attic.id, client=anna, if_none_match=etag)
assert unchanged.status_code is HTTPStatus.NOT_MODIFIED
assert unchanged.parsed is None
update = CleaningUpdateBody(CleaningUpdate(cleaning_type=attic.cleaning_type, price=34.5))
changed = update_cleaning_patch.sync(attic.id, client=anna, body=update, if_match=etag)
assert got(Cleaning, changed).price == 34.5
stale = update_cleaning_patch.sync(attic.id, client=anna, body=update, if_match=etag)
problem_of(HTTPStatus.PRECONDITION_FAILED, stale)

# Errors say where the value is that is not valid.
invalid = problem_of(
    HTTPStatus.UNPROCESSABLE_ENTITY, create_cleaning.sync(client=anna, body=attic_for(1.234))
)
assert not isinstance(invalid.errors, Unset)
assert invalid.errors[0].pointer == "/new_cleaning/price"
missing = problem_of(HTTPStatus.NOT_FOUND, get_cleaning.sync(2147483647, client=anna))
assert missing.title == "Not Found"

# Offers, with a message and without a body. A second one is 409.
message = OfferCreateBody(OfferCreate(message="I could come on Friday."))
offered = got(Offer, create_offer.sync(attic.id, client=ben, body=message))
assert offered.status is OfferStatus.PENDING
assert got(Offer, create_offer.sync(attic.id, client=cleo)).message is None
problem_of(HTTPStatus.CONFLICT, create_offer.sync(attic.id, client=cleo))
pending: list[Offer] = got(list, list_offers.sync(attic.id, client=anna))
assert [got(PublicUser, offer.user).username for offer in pending] == [cleo_name, ben_name]
assert delete_offer.sync_detailed(attic.id, client=cleo).status_code is HTTPStatus.NO_CONTENT

# Accept, rate, read what everyone sees.
problem_of(HTTPStatus.FORBIDDEN, accept_offer.sync(attic.id, ben_name, client=cleo))
accepted = got(Offer, accept_offer.sync(attic.id, ben_name, client=anna))
assert accepted.status is OfferStatus.ACCEPTED
mine: list[Offer] = got(list, list_my_offers.sync(client=ben, status=OfferStatus.ACCEPTED))
assert mine[0].cleaning_id == attic.id
rating = EvaluationCreateBody(EvaluationCreate(overall_rating=5, headline="Spotless"))
rated = got(Evaluation, create_evaluation.sync(ben_name, attic.id, client=anna, body=rating))
assert rated.headline == "Spotless"
assert got(Stats, get_stats.sync(ben_name, client=anyone)).total_evaluations == 1
profile = got(Profile, get_profile.sync(ben_name, client=anna))
assert (profile.avg_overall_rating, profile.email) == (5, bens.new_user.email)
events: list[Event] = got(list, list_events.sync(client=anyone, limit=1))
assert events[0].event_type is EventType.IS_UPDATE
assert events[0].status is CleaningStatus.COMPLETED

# Export, delete, log out.
export = got(Export, export_me.sync(client=ben))
assert export.account.username == ben_name
assert [offer.cleaning_id for offer in export.offers] == [attic.id]
cellar = next(each for each in found if each.cleaning_type is CleaningType.DUST_UP)
deleted = delete_cleaning.sync_detailed(cellar.id, client=anna)
assert deleted.status_code is HTTPStatus.NO_CONTENT
assert delete_token.sync_detailed(client=ben).status_code is HTTPStatus.NO_CONTENT
problem_of(HTTPStatus.UNAUTHORIZED, get_me.sync(client=ben))
