"""Flask-Session: twenty visitors, each with a session in Redis; a login, a counter, a logout; nothing is mixed up."""

from datetime import timedelta

import redis
from flask import Flask, session
from flask_session import Session
from job import HOST, PORT, said_version, step

VISITORS = 20


def make_site(client: redis.Redis) -> Flask:
    site = Flask("site")
    site.config.update(
        SESSION_TYPE="redis", SESSION_REDIS=client, PERMANENT_SESSION_LIFETIME=timedelta(minutes=5), TESTING=True
    )
    Session(site)

    @site.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        session["visits"] = 0
        return "in"

    @site.get("/")
    def visit() -> str:
        session["visits"] = session.get("visits", 0) + 1
        return f"{session.get('name', 'nobody')} {session['visits']}"

    @site.get("/logout")
    def logout() -> str:
        session.clear()
        return "out"

    return site


def main() -> None:
    said_version("flask-session")
    client = redis.Redis(HOST, PORT)
    site = make_site(client)
    visitors = [site.test_client() for _ in range(VISITORS)]
    for number, visitor in enumerate(visitors):
        visitor.get(f"/login/v{number}")
    for _ in range(2):
        for visitor in visitors:
            visitor.get("/")
    step("visits", [visitor.get("/").text for visitor in visitors], [f"v{number} 3" for number in range(VISITORS)])
    kept = client.keys("session:*")
    step("kept in Redis", len(kept), VISITORS)
    step("with an end", all(0 < client.ttl(key) <= 300 for key in kept))
    visitors[0].get("/logout")
    step("a logout", (visitors[0].get("/").text, visitors[1].get("/").text), ("nobody 1", "v1 4"))
    client.delete(*client.keys("session:*"))
    step("all gone", visitors[1].get("/").text, "nobody 1")


if __name__ == "__main__":
    main()
