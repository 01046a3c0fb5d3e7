# Peers without a browser, made of the real clients: chat-pod, chat-origin and chat-visitor.
{
  importNpmLock,
  lib,
  nodejs_22,
  runCommand,
  writeShellScriptBin,
  symlinkJoin,
}: let
  source = lib.fileset.toSource {
    root = ../clients;
    fileset = lib.fileset.unions [../clients/lib ../clients/peers ../clients/package.json ../clients/package-lock.json];
  };
  # Every package by the hash in the lock; scripts that would download more are not run.
  packages = importNpmLock.buildNodeModules {
    npmRoot = source;
    nodejs = nodejs_22;
    derivationArgs.npmFlags = ["--ignore-scripts"];
  };
  clients = runCommand "gemmapod-clients" {} ''
    mkdir $out
    cp -r ${source}/. $out
    ln -s ${packages}/node_modules $out/node_modules
  '';
  peer = name: flags: writeShellScriptBin "chat-${name}" ''exec ${lib.getExe nodejs_22} ${flags} ${clients}/peers/${name}.mjs "$@"'';
in
  symlinkJoin {
    name = "gemmapod-peers";
    paths = [
      (peer "pod" "")
      (peer "origin" "--import ${clients}/lib/wrtc-hook.mjs")
      (peer "visitor" "")
    ];
  }
