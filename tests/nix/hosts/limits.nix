# A small host: what the unit may use follows from what clients may.
{
  services.gemmapod-signal = {
    enable = true;
    settings = {
      registry = "memory";
      drain_timeout = "1m 30s";
      signal = {
        max_sockets = 500;
        max_queue = "128KiB";
        max_queue_total = "4MiB";
        max_frame = "64 KiB";
        max_unfinished_total = 2097152;
      };
      pods = {
        max_blob = "2.5 MiB";
        max_uploads = 4;
        upload_memory = "7.5 MiB";
        memory_limit = "32 MiB";
      };
      http.max_connections = 600;
    };
  };
}
