SERVICE = "gemmapod-signal.service"
FOLDER = "/var/lib/acme/broker.example.org"


def renew() -> None:
    """As security.acme leaves a certificate: readable for its group, the service told."""
    broker.succeed(
        f"cd {FOLDER} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=broker"
        " -addext subjectAltName=DNS:broker.example.org -keyout key.pem -out fullchain.pem"
        " && chgrp web-certificates . fullchain.pem key.pem && chmod 640 fullchain.pem key.pem && chmod 750 ."
        f" && systemctl --no-block try-reload-or-restart {SERVICE}"
    )


def serial() -> str:
    return client.succeed(
        "openssl s_client -connect broker.example.org:443 -servername broker.example.org < /dev/null 2>/dev/null | openssl x509 -noout -serial"
    )


start_all()
broker.wait_for_unit("multi-user.target")
if broker.execute("systemctl cat acme-broker.example.org.service")[0] != 0:
    # A machine without security.acme: what it would have made.
    broker.succeed(f"groupadd --force --system web-certificates && mkdir -p {FOLDER}")
    renew()
    broker.succeed(f"systemctl restart {SERVICE}")
broker.wait_for_unit(SERVICE)

with subtest("the certificate is served"):
    client.wait_for_open_port(443, "broker")
    first = serial()
    made = broker.succeed(f"openssl x509 -noout -serial -in {FOLDER}/fullchain.pem")
    assert first == made, (first, made)

with subtest("the service reads it through its group alone"):
    process = broker.succeed(f"systemctl show -P MainPID {SERVICE}").strip()
    groups = broker.succeed(f"grep ^Groups: /proc/{process}/status").split()[1:]
    group = broker.succeed("getent group web-certificates | cut -d: -f3").strip()
    assert group in groups, (group, groups)
    broker.fail(f"runuser -u nobody -- cat {FOLDER}/key.pem")

with subtest("a renewed one is served without a restart"):
    renew()
    client.wait_until_succeeds(
        "openssl s_client -connect broker.example.org:443 -servername broker.example.org < /dev/null 2>/dev/null | openssl x509 -noout -serial"
        f" | grep -v {first.strip()}",
        timeout=30,
    )
    assert serial() == broker.succeed(f"openssl x509 -noout -serial -in {FOLDER}/fullchain.pem")
    assert broker.succeed(f"systemctl show -P MainPID {SERVICE}").strip() == process

with subtest("the broker calls nobody"):
    assert broker.succeed(f"nsenter -t {process} -n ip -o link").count("\n") == 1
