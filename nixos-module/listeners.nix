# Where the broker listens: read from the settings once, for the sockets, the firewall and the configuration alike.
{
  lib,
  enableIPv6,
}: let
  inherit (builtins) elemAt match;

  # `HOST:PORT`, `unix:PATH` or `systemd:NAME`, as the settings write it.
  parse = address: let
    unix = match "unix:(/.+)" address;
    systemd = match "systemd:([^:]+)" address;
    ipv6 = match "\\[([0-9a-fA-F:.]+)]:([0-9]{1,5})" address;
    named = match "([A-Za-z0-9._-]+):([0-9]{1,5})" address;
    tcp = host: port: {
      kind = "tcp";
      inherit host;
      port = lib.toIntBase10 port;
    };
  in
    if address == null
    then {kind = "wrong";}
    else if unix != null
    then {
      kind = "unix";
      path = elemAt unix 0;
    }
    else if systemd != null
    then {
      kind = "systemd";
      name = elemAt systemd 0;
    }
    else if ipv6 != null
    then tcp (elemAt ipv6 0) (elemAt ipv6 1)
    else if named != null
    then tcp (elemAt named 0) (elemAt named 1)
    else {kind = "wrong";};

  isLoopback = host: host == "localhost" || host == "::1" || match "127\\..*" host != null;
  isAddress = host: lib.hasInfix ":" host || match "[0-9.]+" host != null;

  bracketed = host:
    if lib.hasInfix ":" host
    then "[${host}]"
    else host;

  # What the binary listens on where `listen` is empty.
  defaults = settings: tls: let
    on = port: more:
      {
        address = "${bracketed settings.hostname}:${toString port}";
        purpose = "public";
        tls = false;
        ipv6_only = false;
        proxy_protocol = false;
        mode = "0660";
        group = null;
      }
      // more;
    inherit (settings) port;
  in
    if !tls
    then [
      (on (
        if port == null
        then 8080
        else port
      ) {})
    ]
    else if port != null
    then [(on port {tls = true;})]
    else [
      (on 443 {tls = true;})
      (on 80 {purpose = "redirect";})
    ];

  # A name for the file descriptor: what it is for; a second one of its kind is -2.
  base = listen:
    if listen.place.kind == "systemd"
    then listen.place.name
    else if listen.purpose == "redirect"
    then "redirect"
    else if listen.tls
    then "https"
    else "http";

  name = before: listen: let
    same = lib.count (other: base other == base listen) before;
  in
    if same == 0 || listen.place.kind == "systemd"
    then base listen
    else "${base listen}-${toString (same + 1)}";

  # What tells the socket from others, as part of a unit's name: 443, ipv4-443, 127.0.0.1-8080, run-signal.sock-www-data.
  key = listen: let
    inherit (listen) place;
    host =
      if place.host == "::"
      then lib.optional listen.ipv6_only "ipv6"
      else if place.host == "0.0.0.0"
      then ["ipv4"]
      else [place.host] ++ lib.optional listen.ipv6_only "ipv6";
    file =
      [(lib.replaceStrings ["/"] ["-"] (lib.removePrefix "/" place.path))]
      ++ lib.optional (listen.group != null) listen.group
      ++ lib.optional (listen.mode != "0660") listen.mode;
  in
    lib.concatStringsSep "-" (
      if place.kind == "tcp"
      then host ++ [(toString place.port)]
      else if place.kind == "unix"
      then file
      else []
    );
in
  settings: let
    listed =
      if settings.listen != []
      then settings.listen
      else defaults settings (!lib.elem settings.tls.mode [null "off"]);
    placed = map (listen: listen // {place = parse listen.address;}) listed;
    reaches = place: place.kind == "tcp" && !isLoopback place.host;
  in
    lib.imap0 (at: listen:
      listen
      // {
        name = name (lib.take at placed) listen;
        key = key listen;
        # The TCP port that other hosts reach, if there is one.
        publicPort =
          if reaches listen.place
          then listen.place.port
          else null;
        port = listen.place.port or null;
        needsAddress = listen.place.kind == "tcp" && listen.place.host != "localhost" && !isAddress listen.place.host;
        # ListenStream= of systemd.
        streams =
          if listen.place.kind == "unix"
          then [listen.place.path]
          else if listen.place.kind != "tcp"
          then []
          else if listen.place.host == "localhost"
          then map (host: "${host}:${toString listen.place.port}") (["127.0.0.1"] ++ lib.optional enableIPv6 "[::1]")
          else ["${bracketed listen.place.host}:${toString listen.place.port}"];
      })
    placed
