"""The endpoint that deletes an account."""

from phresh.accounts import audit
from phresh.accounts.tokens import current_account, login_required, require_recent_login
from phresh.deletion import services
from phresh.web.blueprint import Blueprint

blp = Blueprint("deletion", __name__, url_prefix="/api/users")


@blp.delete("/me/", tags=["users"])
@login_required
@blp.response(204)
@blp.alt_response(403)
@blp.alt_response(409)
def delete_me() -> None:
    """Delete your account

    Also deletes your cleanings, except completed ones, and your offers. If one of your offers was
    accepted, that cleaning opens again. Completed cleanings and evaluations stay, without your
    name. With more than 5,000 cleanings, only an operator can delete the account.
    It needs a login of the last 15 minutes.
    """
    require_recent_login()
    user_id = current_account().user_id
    services.delete_account(user_id)
    audit.record("account_deleted", user_id=user_id)
