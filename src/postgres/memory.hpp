// What it is: keeping a worker's resident size small while it reads through the whole buffer cache.
// Who calls it: the log's reader.
// Never: changes what is in the cache, or whether it is cached.
#pragma once

namespace eventbus {

// Takes the buffer cache out of this process's page table. Every buffer that a process has ever touched counts as
// its resident memory, so a worker that has read a long backlog would look as large as shared_buffers. The buffers
// stay where they are, for everybody; touching one again costs a minor page fault.
void forget_touched_buffers();

}  // namespace eventbus
