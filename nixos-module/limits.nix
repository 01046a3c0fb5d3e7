# What the unit may use, from what the settings let clients use.
{lib}: let
  units = import ./units.nix {inherit lib;};
  inherit (units) bytes kib mib;

  # The program, its runtime, the page cache of the registry and what an allocator loses.
  base = 96 * mib;
  # Large pieces of pods that are being sent.
  pieces = 64 * mib;
  # Large heads of HTTP/2 requests.
  heads = 32 * mib;
  # A connection: TLS and the kernel's share, and what a client may send on all streams of HTTP/2 before it is read.
  perConnection = (16 + 96) * kib;
  # A download holds a small piece of a pod once there is no memory for large ones. There are never more than connections.
  perDownload = 8 * kib;
  # What each socket may queue and receive before the common budgets count it, what of that waits for room in the queue of
  # its receiver, and what HTTP/2 queues behind that; and the buffer from which its frames are written, of which it keeps
  # the largest that it ever needed.
  perSocket = (4 * 8 + 32) * kib;
  # A frame is read into the buffer that its socket keeps, and copied if it has to wait for room in the queue of its
  # receiver: a socket has one such frame at most, and keeps what it reserved to read it.
  copiesOfFrames = 2;

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
    + pieces
    + heads
    + http.max_connections * (perConnection + perDownload)
    + signal.max_sockets * perSocket
    + bytes signal.max_queue_total
    + copiesOfFrames * bytes signal.max_unfinished_total
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

  # Of these the binary takes up to five in eight for connections and one in four for downloads, each with a pod's file
  # open; the rest is for uploads and the registry.
  files = {
    http,
    signal,
    ...
  }:
    2 * lib.max http.max_connections signal.max_sockets + 2000;
}
