// The story of README and docs/api.md, with openapi-fetch and the types of openapi-typescript.
// node build/story/story.js http://localhost:8000
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { Cleaning, CleaningUpdate, Offer, paths, Problem } from "./build/typescript/phresh.js";

const baseUrl = process.argv[2] ?? "http://localhost:8000";
const run = crypto.randomUUID().slice(0, 8);
const password = "four cats on a roof";
const anyone = createClient<paths>({ baseUrl });

/** Register, log in, and return a client that sends the token. */
async function person(name: string) {
  const username = `${name}-${run}`;
  const email = `${username}@phresh.example`;
  const registered = await anyone.POST("/api/users/", {
    body: { new_user: { email, username, password } },
  });
  assert.equal(registered.response.status, 201);
  const { data: token } = await anyone.POST("/api/users/login/token/", {
    body: { username: email, password },
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  });
  assert(token);
  assert(token.expires_in > 0);
  const headers = { Authorization: `Bearer ${token.access_token}` };
  return { email, username, client: createClient<paths>({ baseUrl, headers }) };
}

/** Return the cursor of the next page, or undefined after the last one. */
function nextPage(response: Response): string | undefined {
  const next = /<([^>]*)>; *rel="next"/.exec(response.headers.get("Link") ?? "")?.[1];
  return next && (new URL(next, baseUrl).searchParams.get("after") ?? undefined);
}

const anna = await person("anna");
const ben = await person("ben");
const cleo = await person("cleo");

// An error is typed as well as what is expected.
const again = await anyone.POST("/api/users/", {
  body: { new_user: { email: anna.email, username: anna.username, password } },
});
assert.equal(again.response.status, 409);
assert.equal(again.error?.status, 409);
const mistaken = await anyone.POST("/api/users/login/token/", {
  body: { username: anna.email, password: "five cats on a roof" },
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
});
assert(mistaken.error);
assert.equal(mistaken.error.status, mistaken.response.status);
const me = await anna.client.GET("/api/users/me/");
assert.equal(me.data?.email, anna.email);

// The logins of an account. A registration is one too.
const all = "/api/users/me/sessions/";
const sessions = (await anna.client.GET(all)).data ?? [];
assert.deepEqual(sessions.map((session) => session.is_current), [true, false]);
const first = { params: { path: { session_id: sessions[1]!.id } } };
const one = "/api/users/me/sessions/{session_id}/";
assert.equal((await anna.client.DELETE(one, first)).response.status, 204);
assert.equal((await anna.client.DELETE(one, first)).error?.status, 404);
assert.equal((await anna.client.DELETE(all)).response.status, 204);
assert.equal((await anna.client.GET(all)).data?.length, 1);

// A second factor, which only a right code switches on.
const factor = "/api/users/me/two-factor/";
const { data: secret } = await anna.client.POST(factor);
assert(secret?.uri.includes(secret.secret));
const guessed = await anna.client.PUT(factor, { body: { two_factor: { code: "000000" } } });
assert.equal(guessed.error?.status, 422);
assert.equal((await anna.client.DELETE(factor)).response.status, 204);

// Mails, and a link that is not valid.
const { email } = anna;
const resent = await anyone.POST("/api/users/confirmation/", { body: { confirmation: { email } } });
assert.equal(resent.response.status, 204);
const forgotten = await anyone.POST("/api/users/recovery/", { body: { recovery: { email } } });
assert.equal(forgotten.response.status, 204);
const expired = await anyone.PUT("/api/users/recovery/", {
  body: { recovery: { token: "x".repeat(43), password } },
});
assert.equal(expired.error?.status, 422);

// Anyone may post, without a token too. Nobody owns what a guest has posted.
const guest = await anyone.POST("/api/cleanings/", {
  body: { new_cleaning: { name: `Guest ${run}`, price: 29.99 } },
});
assert.equal(guest.data?.owner, null);
assert.equal(guest.data?.price, 29.99);

// The same key and the same body: the same cleaning.
const key = crypto.randomUUID();
const post = (price: number) =>
  anna.client.POST("/api/cleanings/", {
    params: { header: { "Idempotency-Key": key } },
    body: { new_cleaning: { name: `Attic ${run}`, price } },
  });
const created = await post(25);
assert(created.data);
const attic: Cleaning = created.data;
assert.equal(created.response.status, 201);
assert.equal(attic.owner?.username, anna.username);
assert.equal(attic.description, null);
const location = created.response.headers.get("Location");
assert(location);
assert.equal(new URL(location, baseUrl).pathname, `/api/cleanings/${attic.id}/`);
assert.deepEqual((await post(25)).data, attic);
assert.equal((await post(26)).error?.status, 422);

// Lists, page by page.
for (const [name, cleaning_type] of [["Bath", "full_clean"], ["Cellar", "dust_up"]] as const) {
  const { response } = await anna.client.POST("/api/cleanings/", {
    body: { new_cleaning: { name: `${name} ${run}`, price: 30.5, cleaning_type } },
  });
  assert.equal(response.status, 201);
}
const found: Cleaning[] = [];
let after: string | undefined;
let pages = 0;
do {
  const page = await anyone.GET("/api/cleanings/", {
    params: {
      query: {
        owner: anna.username,
        q: run,
        cleaning_type: ["full_clean", "spot_clean", "dust_up"],
        price_min: 25,
        price_max: 40.5,
        sort: "-price",
        limit: 2,
        ...(after && { after }),
      },
    },
  });
  assert(page.data);
  found.push(...page.data);
  after = nextPage(page.response);
  pages += 1;
} while (after);
assert.deepEqual(found.map((cleaning) => cleaning.price), [30.5, 30.5, 25]);
assert.equal(pages, 2);

// Conditional requests. What was read fits what is sent.
const path = { cleaning_id: attic.id };
const read = await anyone.GET("/api/cleanings/{cleaning_id}/", { params: { path } });
const etag = read.response.headers.get("ETag");
assert(etag);
const unchanged = await anyone.GET("/api/cleanings/{cleaning_id}/", {
  params: { path, header: { "If-None-Match": etag } },
});
assert.equal(unchanged.response.status, 304);
const change = (cleaning_update: CleaningUpdate) =>
  anna.client.PATCH("/api/cleanings/{cleaning_id}/", {
    params: { path, header: { "If-Match": etag } },
    body: { cleaning_update },
  });
const changed = await change({ price: 34.5, cleaning_type: attic.cleaning_type });
assert.equal(changed.data?.price, 34.5);
const stale = await change({ price: 1 });
assert.equal(stale.error?.status, 412);

// Errors say where the value is that is not valid.
const invalid = await anna.client.POST("/api/cleanings/", {
  body: { new_cleaning: { name: `Attic ${run}`, price: 1.234 } },
});
const problem: Problem | undefined = invalid.error;
assert.equal(problem?.status, 422);
assert.equal(problem.errors?.[0]?.pointer, "/new_cleaning/price");
const missing = await anyone.GET("/api/cleanings/{cleaning_id}/", {
  params: { path: { cleaning_id: 2147483647 } },
});
assert.equal(missing.error?.status, 404);
assert.equal(missing.error.title, "Not Found");

// Offers, with a message and without a body. A second one is 409.
const offers = "/api/cleanings/{cleaning_id}/offers/";
const offered = await ben.client.POST(offers, {
  params: { path },
  body: { new_offer: { message: "I could come on Friday." } },
});
assert.equal(offered.data?.status, "pending");
const plain = await cleo.client.POST(offers, { params: { path } });
assert.equal(plain.data?.message, null);
const twice = await cleo.client.POST(offers, { params: { path } });
assert.equal(twice.error?.status, 409);
const pending = await anna.client.GET(offers, { params: { path } });
const bidders = (list: Offer[]) => list.map((offer) => offer.user?.username);
assert.deepEqual(bidders(pending.data ?? []), [cleo.username, ben.username]);
const withdrawn = await cleo.client.DELETE(offers, { params: { path } });
assert.equal(withdrawn.response.status, 204);
assert.equal(withdrawn.data, undefined);

// Accept, rate, read what everyone sees.
const hers = { ...path, username: ben.username };
const accept = "/api/cleanings/{cleaning_id}/offers/{username}/";
assert.equal((await cleo.client.PUT(accept, { params: { path: hers } })).error?.status, 403);
const accepted = await anna.client.PUT(accept, { params: { path: hers } });
assert.equal(accepted.data?.status, "accepted");
const mine = await ben.client.GET("/api/users/me/offers/", {
  params: { query: { status: "accepted" } },
});
assert.equal(mine.data?.[0]?.cleaning_id, attic.id);
const evaluate = "/api/users/{username}/evaluations/{cleaning_id}/";
const rated = await anna.client.POST(evaluate, {
  params: { path: hers },
  body: { evaluation_create: { overall_rating: 5, headline: "Spotless" } },
});
assert.equal(rated.data?.headline, "Spotless");
const byUsername = { path: { username: ben.username } };
const stats = await anyone.GET("/api/users/{username}/evaluations/stats/", { params: byUsername });
assert.equal(stats.data?.total_evaluations, 1);
const profile = await anna.client.GET("/api/profiles/{username}/", { params: byUsername });
assert.equal(profile.data?.avg_overall_rating, 5);
assert.equal(profile.data.email, ben.email);
const feed = await anyone.GET("/api/feed/cleanings/", { params: { query: { limit: 1 } } });
assert.equal(feed.data?.[0]?.event_type, "is_update");
assert.equal(feed.data[0].status, "completed");

// Export, delete, log out.
const exported = await ben.client.GET("/api/users/me/export/");
assert.equal(exported.data?.account.username, ben.username);
assert.deepEqual(exported.data.offers.map((offer) => offer.cleaning_id), [attic.id]);
const cellar = found.find((cleaning) => cleaning.cleaning_type === "dust_up");
assert(cellar);
const gone = { params: { path: { cleaning_id: cellar.id } } };
assert.equal((await anna.client.DELETE("/api/cleanings/{cleaning_id}/", gone)).response.status, 204);
assert.equal((await ben.client.POST("/api/users/logout/")).response.status, 204);
assert.equal((await ben.client.GET("/api/users/me/")).error?.status, 401);
