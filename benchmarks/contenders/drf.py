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

# Django's models and what uses them can be imported only now.
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
    """The table of users, as far as it is of use here."""

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
    """The table of cleanings, which Phresh's migrations make."""

    name = models.TextField()
    description = models.TextField(null=True)
    cleaning_type = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.TextField(default="open")
    owner = models.ForeignKey(User, models.CASCADE, null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label = "cleanings"
        db_table = "cleanings"
        managed = False


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
    """Knows the user whose token was sent."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        """Give them, None without a token, or answer 401."""
        sent = get_authorization_header(request)
        if not sent:
            return None
        scheme, _, text = sent.partition(b" ")
        known = Token.objects.select_related("user").filter(
            hash=hashlib.sha256(text).digest(),
            expires_at__gt=timezone.now(),
            user__is_active=True,
        )
        try:
            token = known.get() if scheme.lower() == b"bearer" else None
        except Token.DoesNotExist:
            token = None
        if token is None:
            raise AuthenticationFailed("The token is not valid.")
        return token.user, token

    def authenticate_header(self, _request: Request) -> str:
        """Give the challenge that a 401 comes with."""
        return "Bearer"


class IsOwnerOrReadOnly(BasePermission):
    """Lets only who owns a cleaning change it."""

    def has_object_permission(self, request: Request, _view: Any, cleaning: Cleaning) -> bool:
        """Whether they may."""
        return request.method in SAFE_METHODS or cleaning.owner_id == request.user.id


class Price(serializers.DecimalField):
    """A price: a number in the answer too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=10, decimal_places=2, min_value=Decimal(0), **kwargs)

    def to_representation(self, value: Decimal) -> float:
        """Give what stands in the answer."""
        return float(value)


class Strict(serializers.Serializer):
    """Refuses unknown fields."""

    def to_internal_value(self, data: Any) -> Any:
        """Give the checked values."""
        values = super().to_internal_value(data)
        known = {name for name, field in self.fields.items() if not field.read_only}
        if unknown := set(data) - known:
            raise serializers.ValidationError(dict.fromkeys(unknown, "Unknown field."))
        return values


class OwnerSerializer(serializers.Serializer):
    """A user, as others see them."""

    username = serializers.CharField(read_only=True)


class CleaningSerializer(Strict):
    """A cleaning, as it is posted, changed and answered."""

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
    created_at = serializers.DateTimeField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)

    def validate_name(self, name: str) -> str:
        """Refuse a blank name."""
        if not name.strip():
            raise serializers.ValidationError("Must not be blank.")
        return name


class EventSerializer(CleaningSerializer):
    """A cleaning as it is now, and what happened to it when."""

    event_type = serializers.CharField(read_only=True)
    event_timestamp = serializers.DateTimeField(read_only=True)


class OfferSerializer(serializers.Serializer):
    """An offer, as it is answered."""

    id = serializers.IntegerField()
    cleaning_id = serializers.IntegerField()
    user = OwnerSerializer()
    message = serializers.CharField()
    status = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class PageQuerySerializer(Strict):
    """Which page to list."""

    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)
    after = serializers.CharField(required=False)


class CreateBodySerializer(Strict):
    """The body of a POST."""

    new_cleaning = CleaningSerializer()


class UpdateBodySerializer(Strict):
    """The body of a PATCH; partial, as all in it is then."""

    cleaning_update = CleaningSerializer()

    def validate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuse a body without changes in it."""
        if "cleaning_update" not in body:
            raise serializers.ValidationError("cleaning_update is missing.")
        return body


class ListQuerySerializer(Strict):
    """Which cleanings to list, in which order."""

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
            *price, last = read_cursor(query["after"], by_price)
            if by_price:
                cleanings = cleanings.filter(price__gte=price[0])
                cleanings = cleanings.exclude(price=price[0], id__lte=last)
            else:
                cleanings = cleanings.filter(id__lt=last)
        found = list(cleanings[: query["limit"] + 1])
        page = found[: query["limit"]]
        place = place_of(page[-1], by_price) if len(found) > len(page) else None
        return Response(CleaningSerializer(page, many=True).data, headers=link(request, place))

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
        """Change a cleaning of one's own."""
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
        """List the offers on a cleaning of one's own, newest first."""
        query = validated(PageQuerySerializer(data=request.query_params))
        if get_object_or_404(Cleaning, id=cleaning_id).owner_id != request.user.id:
            raise PermissionDenied
        offers = Offer.objects.select_related("user").filter(cleaning_id=cleaning_id)
        if "after" in query:
            (last,) = read_place(query["after"], f"-id {ID}", int)
            offers = offers.filter(id__lt=last)
        found = list(offers.order_by("-id")[: query["limit"] + 1])
        page = found[: query["limit"]]
        place = f"-id {page[-1].id}" if len(found) > len(page) else None
        return Response(OfferSerializer(page, many=True).data, headers=link(request, place))


class FeedView(APIView):
    """What happens."""

    def get(self, request: Request) -> Response:
        """List events, newest first."""
        query = validated(PageQuerySerializer(data=request.query_params))
        found: list[Cleaning] = []
        for kind, column in (("is_create", "created_at"), ("is_update", "updated_at")):
            cleanings = OWNED.order_by(f"-{column}", "-id")
            if kind == "is_update":
                cleanings = cleanings.filter(updated_at__gt=models.F("created_at"))
            if "after" in query:
                kinds = (datetime.fromisoformat, int)
                time, last = read_place(query["after"], rf"-time ({TIME}) {ID}", *kinds)
                cleanings = cleanings.filter(**{f"{column}__lte": time})
                cleanings = cleanings.exclude(**{column: time, "id__gte": last})
            for cleaning in cleanings[: query["limit"] + 1]:
                cleaning.event_type = kind
                cleaning.event_timestamp = getattr(cleaning, column)
                found.append(cleaning)
        found.sort(key=lambda event: (event.event_timestamp, event.id), reverse=True)
        page = found[: query["limit"]]
        last = page[-1] if page else None
        place = f"-time {last.event_timestamp.isoformat()} {last.id}" if last else None
        headers = link(request, place if len(found) > len(page) else None)
        return Response(EventSerializer(page, many=True).data, headers=headers)


ID = "([0-9]{1,10})"
TIME = r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]{6})?\+00:00"


def link(request: Request, place: str | None) -> dict[str, str]:
    """Give the header that links to the page after a place."""
    if place is None:
        return {}
    after = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    parameters = urlencode({**request.query_params.dict(), "after": after})
    return {"Link": f'<{request.path}?{parameters}>; rel="next"'}


def read_place(cursor: str, pattern: str, *kinds: Any) -> list[Any]:
    """Give the values of a place, or answer 422."""
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        match = re.fullmatch(pattern, plain)
        texts = match.groups() if match else ()
        return [kind(text) for kind, text in zip(kinds, texts, strict=True)]
    except ValueError:
        raise serializers.ValidationError({"after": "Not a place in this order."}) from None


def validated(serializer: serializers.Serializer) -> dict[str, Any]:
    """Give the checked values, or answer 422."""
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


def place_of(cleaning: Cleaning, by_price: bool) -> str:
    """Give the place of a cleaning in the list."""
    return f"price {cleaning.price} {cleaning.id}" if by_price else f"-id {cleaning.id}"


def read_cursor(cursor: str, by_price: bool) -> list[Any]:
    """Give the values of a place in the list, or answer 422."""
    if by_price:
        return read_place(cursor, rf"price ([0-9]{{1,8}}\.[0-9]{{2}}) {ID}", Decimal, int)
    return read_place(cursor, f"-id {ID}", int)


urlpatterns = [
    path("api/cleanings/", CleaningsView.as_view()),
    path("api/cleanings/<int:cleaning_id>/", CleaningView.as_view()),
    path("api/cleanings/<int:cleaning_id>/offers/", OffersView.as_view()),
    path("api/feed/cleanings/", FeedView.as_view()),
]
app = get_wsgi_application()
