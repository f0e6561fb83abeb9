"""The API in Django REST framework on psycopg, with persistent connections."""

import base64
import hashlib
import os
import re
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from psycopg.conninfo import conninfo_to_dict

server = conninfo_to_dict(os.environ["DATABASE_URL"])
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": server["dbname"],
            "USER": server.get("user"),
            "PASSWORD": server.get("password"),
            "HOST": server.get("host"),
            "PORT": server.get("port"),
            "CONN_MAX_AGE": None,
        }
    },
    INSTALLED_APPS=["rest_framework"],
    MIDDLEWARE=[],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    ROOT_URLCONF=__name__,
    TIME_ZONE="UTC",
    USE_TZ=True,
)
django.setup()

# Django's models can only be imported after setup().
from django.db import models  # noqa: E402
from django.shortcuts import get_object_or_404  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from rest_framework import serializers  # noqa: E402
from rest_framework.authentication import (  # noqa: E402
    BaseAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied  # noqa: E402
from rest_framework.permissions import (  # noqa: E402
    SAFE_METHODS,
    BasePermission,
    IsAuthenticated,
    IsAuthenticatedOrReadOnly,
)
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

serializers.ValidationError.status_code = 422


class User(models.Model):
    """The columns of the table of users that are needed here."""

    username = models.TextField()
    is_active = models.BooleanField()
    is_authenticated = True

    class Meta:
        app_label = "cleanings"
        db_table = "users"
        managed = False


class Token(models.Model):
    """The table of tokens."""

    hash = models.BinaryField(primary_key=True)
    user = models.ForeignKey(User, models.CASCADE)
    expires_at = models.DateTimeField()

    class Meta:
        app_label = "cleanings"
        db_table = "tokens"
        managed = False


class Cleaning(models.Model):
    """The table of cleanings, made by Phresh's migrations."""

    name = models.TextField()
    description = models.TextField(null=True)
    cleaning_type = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.TextField(default="open")
    owner = models.ForeignKey(User, models.CASCADE, null=True)
    hidden_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label = "cleanings"
        db_table = "cleanings"
        managed = False

    @property
    def is_hidden(self) -> bool:
        """Whether an operator has hidden it."""
        return self.hidden_at is not None


class Offer(models.Model):
    """The table of offers."""

    cleaning = models.ForeignKey(Cleaning, models.CASCADE)
    user = models.ForeignKey(User, models.SET_NULL, null=True)
    message = models.TextField(null=True)
    status = models.TextField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label = "cleanings"
        db_table = "offers"
        managed = False


class TokenAuthentication(BaseAuthentication):
    """Find the user of the access token."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        """Return the user and the token, or None without one; respond with 401 if it is invalid."""
        header = get_authorization_header(request)
        if not header:
            return None
        scheme, _, text = header.partition(b" ")
        tokens = Token.objects.select_related("user").filter(
            hash=hashlib.sha256(text).digest(),
            expires_at__gt=timezone.now(),
            user__is_active=True,
        )
        try:
            token = tokens.get() if scheme.lower() == b"bearer" else None
        except Token.DoesNotExist:
            token = None
        if token is None:
            raise AuthenticationFailed("The access token is invalid or has expired.")
        return token.user, token

    def authenticate_header(self, _request: Request) -> str:
        """Return the challenge of a 401 response."""
        return "Bearer"


class IsOwnerOrReadOnly(BasePermission):
    """Allow only the owner to change a cleaning."""

    def has_object_permission(self, request: Request, _view: Any, cleaning: Cleaning) -> bool:
        """Return whether the request is allowed."""
        return request.method in SAFE_METHODS or cleaning.owner_id == request.user.id


class Price(serializers.DecimalField):
    """A price, which is a number in responses too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=10, decimal_places=2, min_value=Decimal(0), **kwargs)

    def to_representation(self, value: Decimal) -> float:
        """Return the price as a number."""
        return float(value)


class Strict(serializers.Serializer):
    """Reject unknown fields."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values."""
        values = super().to_internal_value(data)
        tokens = {name for name, field in self.fields.items() if not field.read_only}
        if unknown := set(data) - tokens:
            raise serializers.ValidationError(dict.fromkeys(unknown, "Unknown field."))
        return values


class OwnerSerializer(serializers.Serializer):
    """The public data of a user."""

    username = serializers.CharField(read_only=True)


class CleaningSerializer(Strict):
    """A cleaning in requests and responses."""

    id = serializers.IntegerField(read_only=True)
    name = serializers.CharField(max_length=200, trim_whitespace=False)
    description = serializers.CharField(
        max_length=10_000, trim_whitespace=False, allow_blank=True, allow_null=True, default=None
    )
    cleaning_type = serializers.ChoiceField(
        ["dust_up", "spot_clean", "full_clean"], default="spot_clean"
    )
    price = Price()
    status = serializers.CharField(read_only=True)
    owner = OwnerSerializer(read_only=True)
    is_hidden = serializers.BooleanField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)

    def validate_name(self, name: str) -> str:
        """Reject a blank name."""
        if not name.strip():
            raise serializers.ValidationError("Must not be blank.")
        return name


class EventSerializer(CleaningSerializer):
    """An event: a cleaning as it is now, with the type and time of the event."""

    event_type = serializers.CharField(read_only=True)
    event_timestamp = serializers.DateTimeField(read_only=True)


class OfferSerializer(serializers.Serializer):
    """The representation of an offer."""

    id = serializers.IntegerField()
    cleaning_id = serializers.IntegerField()
    user = OwnerSerializer()
    message = serializers.CharField()
    status = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class PageQuerySerializer(Strict):
    """The query parameters of a page."""

    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)
    after = serializers.CharField(required=False)


class CreateBodySerializer(Strict):
    """The body of a POST."""

    new_cleaning = CleaningSerializer()


class UpdateBodySerializer(Strict):
    """The body of a PATCH. It is partial, and so is the cleaning in it."""

    cleaning_update = CleaningSerializer()

    def validate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Reject a body without ``cleaning_update``, which ``partial`` allows."""
        if "cleaning_update" not in body:
            raise serializers.ValidationError("cleaning_update is missing.")
        return body


class ListQuerySerializer(Strict):
    """The query parameters of the list of cleanings."""

    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)
    after = serializers.CharField(required=False)
    cleaning_type = serializers.ChoiceField(["dust_up", "spot_clean", "full_clean"], required=False)
    price_min = Price(required=False)
    sort = serializers.ChoiceField(["-id", "price"], default="-id")


OWNED = Cleaning.objects.select_related("owner")


class CleaningsView(APIView):
    """All cleanings."""

    authentication_classes = [TokenAuthentication]

    def get(self, request: Request) -> Response:
        """List cleanings, newest or cheapest first."""
        query = validated(ListQuerySerializer(data=request.query_params))
        by_price = query["sort"] == "price"
        cleanings = OWNED.order_by(*(["price", "id"] if by_price else ["-id"]))
        if "cleaning_type" in query:
            cleanings = cleanings.filter(cleaning_type=query["cleaning_type"])
        if "price_min" in query:
            cleanings = cleanings.filter(price__gte=query["price_min"])
        if "after" in query:
            *price, last = decode_list_cursor(query["after"], by_price)
            if by_price:
                cleanings = cleanings.filter(price__gte=price[0])
                cleanings = cleanings.exclude(price=price[0], id__lte=last)
            else:
                cleanings = cleanings.filter(id__lt=last)
        rows = list(cleanings[: query["limit"] + 1])
        page = rows[: query["limit"]]
        plain_cursor = plain_cursor_of(page[-1], by_price) if len(rows) > len(page) else None
        return Response(
            CleaningSerializer(page, many=True).data, headers=next_link(request, plain_cursor)
        )

    def post(self, request: Request) -> Response:
        """Post a cleaning."""
        body = validated(CreateBodySerializer(data=request.data))
        now = timezone.now()
        times = {"created_at": now, "updated_at": now}
        cleaning = Cleaning.objects.create(**body["new_cleaning"], **times, owner=request.user)
        headers = {"Location": f"/api/cleanings/{cleaning.id}/"}
        return Response(CleaningSerializer(cleaning).data, 201, headers=headers)


class CleaningView(APIView):
    """One cleaning."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [IsAuthenticatedOrReadOnly, IsOwnerOrReadOnly]

    def get(self, _request: Request, cleaning_id: int) -> Response:
        """Get a cleaning."""
        return Response(CleaningSerializer(get_object_or_404(OWNED, id=cleaning_id)).data)

    def patch(self, request: Request, cleaning_id: int) -> Response:
        """Change a cleaning of the current user."""
        body = validated(UpdateBodySerializer(data=request.data, partial=True))
        changes = body["cleaning_update"]
        cleaning = get_object_or_404(OWNED, id=cleaning_id)
        self.check_object_permissions(request, cleaning)
        for name, value in changes.items():
            setattr(cleaning, name, value)
        if changes:
            cleaning.updated_at = timezone.now()
            cleaning.save(update_fields=[*changes, "updated_at"])
        return Response(CleaningSerializer(cleaning).data)


class OffersView(APIView):
    """The offers on a cleaning."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request: Request, cleaning_id: int) -> Response:
        """List the offers on a cleaning of the current user, newest first."""
        query = validated(PageQuerySerializer(data=request.query_params))
        if get_object_or_404(Cleaning, id=cleaning_id).owner_id != request.user.id:
            raise PermissionDenied
        offers = Offer.objects.select_related("user").filter(cleaning_id=cleaning_id)
        if "after" in query:
            (last,) = decode_cursor(query["after"], f"-id {ID}", int)
            offers = offers.filter(id__lt=last)
        rows = list(offers.order_by("-id")[: query["limit"] + 1])
        page = rows[: query["limit"]]
        plain_cursor = f"-id {page[-1].id}" if len(rows) > len(page) else None
        return Response(
            OfferSerializer(page, many=True).data, headers=next_link(request, plain_cursor)
        )


class FeedView(APIView):
    """The feed of events."""

    def get(self, request: Request) -> Response:
        """List events, newest first."""
        query = validated(PageQuerySerializer(data=request.query_params))
        rows: list[Cleaning] = []
        for kind, column in (("is_create", "created_at"), ("is_update", "updated_at")):
            cleanings = OWNED.order_by(f"-{column}", "-id")
            if kind == "is_update":
                cleanings = cleanings.filter(updated_at__gt=models.F("created_at"))
            if "after" in query:
                kinds = (datetime.fromisoformat, int)
                time, last = decode_cursor(query["after"], rf"-time ({TIME}) {ID}", *kinds)
                cleanings = cleanings.filter(**{f"{column}__lte": time})
                cleanings = cleanings.exclude(**{column: time, "id__gte": last})
            for cleaning in cleanings[: query["limit"] + 1]:
                cleaning.event_type = kind
                cleaning.event_timestamp = getattr(cleaning, column)
                rows.append(cleaning)
        rows.sort(key=lambda event: (event.event_timestamp, event.id), reverse=True)
        page = rows[: query["limit"]]
        last = page[-1] if page else None
        plain_cursor = f"-time {time_text(last.event_timestamp)} {last.id}" if last else None
        headers = next_link(request, plain_cursor if len(rows) > len(page) else None)
        return Response(EventSerializer(page, many=True).data, headers=headers)


ID = "([0-9]{1,10})"
TIME = r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]{6})?(?:Z|\+00:00)"


def time_text(time: datetime) -> str:
    """Return a time in UTC as cursors have it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def next_link(request: Request, plain_cursor: str | None) -> dict[str, str]:
    """Return the ``Link`` header of the page after a cursor, if there is one."""
    if plain_cursor is None:
        return {}
    after = base64.urlsafe_b64encode(plain_cursor.encode()).decode().rstrip("=")
    parameters = urlencode({**request.query_params.dict(), "after": after})
    return {"Link": f'<{request.path}?{parameters}>; rel="next"'}


def decode_cursor(cursor: str, pattern: str, *kinds: Any) -> list[Any]:
    """Return the values in a cursor, or respond with 422."""
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        match = re.fullmatch(pattern, plain)
        texts = match.groups() if match else ()
        return [kind(text) for kind, text in zip(kinds, texts, strict=True)]
    except ValueError:
        raise serializers.ValidationError(
            {"after": "Not a valid cursor for this sort order."}
        ) from None


def validated(serializer: serializers.Serializer) -> dict[str, Any]:
    """Return the validated values, or respond with 422."""
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


def plain_cursor_of(cleaning: Cleaning, by_price: bool) -> str:
    """Return the cursor of a cleaning in the list, before it is encoded."""
    return f"price {cleaning.price} {cleaning.id}" if by_price else f"-id {cleaning.id}"


def decode_list_cursor(cursor: str, by_price: bool) -> list[Any]:
    """Return the values in a cursor of the list, or respond with 422."""
    if by_price:
        return decode_cursor(cursor, rf"price ([0-9]{{1,8}}\.[0-9]{{2}}) {ID}", Decimal, int)
    return decode_cursor(cursor, f"-id {ID}", int)


urlpatterns = [
    path("api/cleanings/", CleaningsView.as_view()),
    path("api/cleanings/<int:cleaning_id>/", CleaningView.as_view()),
    path("api/cleanings/<int:cleaning_id>/offers/", OffersView.as_view()),
    path("api/feed/cleanings/", FeedView.as_view()),
]
app = get_wsgi_application()
