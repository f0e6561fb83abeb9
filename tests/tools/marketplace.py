"""A cleaning in any state, with its owner, its bidders and another user."""

from tests.tools.users import Someone

STATES = ("open", "pending", "taken", "cancelled", "completed")


class Story:
    """Anna's cleaning in one of STATES; Ben and Cleo bid unless it is "open", Dora never does."""

    def __init__(self, make_user, make_cleaning, state: str) -> None:
        self.anna, self.ben, self.cleo, self.dora = map(make_user, ("anna", "ben", "cleo", "dora"))
        self.job = make_cleaning(owner_id=self.anna.id, price="20.00", cleaning_type="dust_up")
        self.url = f"/api/cleanings/{self.job}/"
        self.offers = f"{self.url}offers/"
        self.evaluation = f"/api/users/ben/evaluations/{self.job}/"
        if state == "open":
            return
        for bidder in (self.ben, self.cleo):
            assert bidder.client.post(self.offers).status_code == 201
        if state == "pending":
            return
        assert self.anna.client.put(f"{self.offers}ben/").status_code == 200
        if state == "cancelled":
            assert self.ben.client.put(self.offers).status_code == 200
        if state == "completed":
            rating = {"evaluation_create": {"overall_rating": 4}}
            assert self.anna.client.post(self.evaluation, json=rating).status_code == 201

    def who(self, name: str) -> Someone:
        return getattr(self, name)


def standing(sql) -> tuple[str | None, dict[str | None, str]]:
    """Return the status of the only cleaning, and the status of each offer by its bidder."""
    status = sql("SELECT status FROM cleanings")
    offers = sql("SELECT username, status FROM offers LEFT JOIN users ON users.id = user_id")
    return (status[0][0] if status else None), dict(map(tuple, offers))
