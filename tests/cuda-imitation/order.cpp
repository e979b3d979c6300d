// The order of work on several streams. Streams run as late as they can here, one after the other, so that results alone do not show work that nothing
// orders. Therefore each piece of work knows what comes before it: earlier work of its stream, what its stream waited for by events, and what the
// program had waited for when it was queued. Memory that two streams use without such an order is a fault, even where both only read, which no
// program here does.
#include "imitation.h"

#include <algorithm>

namespace {
const Work* current = nullptr;
}

const Work* running() { return current; }

void run_as(const Work& work, const std::function<void()>& body) {
    // Work that waits for an event of another stream runs that one's.
    const Work* outer = current;
    current = &work;
    body();
    current = outer;
}

void merge(Clock& clock, const Clock& other) {
    for (const auto& [stream, ticket] : other) clock[stream] = std::max(clock[stream], ticket);
}

bool note_use(Clock& uses) {
    if (!current) return true;
    for (const auto& [stream, ticket] : uses) {
        if (stream == current->stream) continue;
        const auto before = current->before->find(stream);
        if (before == current->before->end() || before->second < ticket) return false;
    }
    uses[current->stream] = current->ticket;
    return true;
}
