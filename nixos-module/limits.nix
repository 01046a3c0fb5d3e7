# What the unit may use, from what the settings let clients use.
{lib}: let
  units = import ./units.nix {inherit lib;};
  inherit (units) bytes kib mib;

  # The program, its runtime, the page cache of the registry and what an allocator loses.
  base = 96 * mib;
  # A connection with its buffers: a head being read, a piece of a pod being sent, TLS, and the kernel's share.
  perConnection = 48 * kib;
  # What each socket may queue and receive before the common budgets count it.
  perSocket = 2 * 8 * kib;

  # Threads that wait for cores, for disks, and the rest of the process.
  workers = 256;
  blocking = 512;
  others = 32;
in {
  memory = {
    signal,
    pods,
    http,
    registry,
    ...
  }:
    base
    + http.max_connections * perConnection
    + signal.max_sockets * perSocket
    + bytes signal.max_queue_total
    + bytes signal.max_unfinished_total
    + bytes pods.upload_memory
    + bytes pods.compression_memory
    + (
      if registry == "memory"
      then bytes pods.memory_limit
      else 0
    );

  tasks = {
    pods,
    http,
    ...
  }:
    workers + lib.min blocking (http.max_connections + pods.max_uploads) + others;

  # A connection may hold a socket and a pod's file; the binary asks for room for all sockets and 2,000 files.
  files = {
    http,
    signal,
    ...
  }:
    2 * lib.max http.max_connections signal.max_sockets + 2000;
}
