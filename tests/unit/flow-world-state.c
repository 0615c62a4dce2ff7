/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saved states of one side of the player: migration, also one that fails,
 * snapshots, damaged states.  Whatever is restored is saved again at once, and
 * has to be the same.
 */
#include "flow-world.h"

#include <string.h>

bool side_params_equal(const SpiceFlowClientParams *a,
                         const SpiceFlowClientParams *b)
{
    return a->id == b->id && a->flow_control == b->flow_control &&
           a->window == b->window && a->interval == b->interval &&
           a->send_tokens == b->send_tokens &&
           a->to_guest_bytes == b->to_guest_bytes &&
           a->to_guest_messages == b->to_guest_messages &&
           a->to_client_bytes == b->to_client_bytes &&
           a->to_client_messages == b->to_client_messages;
}

void side_save(const Side *s, SpiceFlowSaved *saved)
{
    if (s->is_model) {
        flow_model_save(s->model, saved, s->now);
    } else {
        spice_flow_save(s->flow, saved, s->now);
    }
}

const char *side_saved_differ(const SpiceFlowSaved *a,
                                const SpiceFlowSaved *b)
{
    if (a->self_tokens != b->self_tokens) {
        return "self_tokens";
    }
    if (a->turn != b->turn || a->turn_waited != b->turn_waited) {
        return a->turn != b->turn ? "turn" : "turn_waited";
    }
    if (a->torn != b->torn) {
        return "torn";
    }
    if (a->num_clients != b->num_clients ||
        a->num_buffers != b->num_buffers || a->data_size != b->data_size) {
        return "a number of";
    }
    for (uint32_t i = 0; i < a->num_clients; i++) {
        const SpiceFlowSavedClient *x = &a->clients[i], *y = &b->clients[i];

        if (x->params.id != y->params.id || x->tokens != y->tokens ||
            x->due != y->due || x->send_tokens != y->send_tokens ||
            x->in_flight != y->in_flight || x->receiving != y->receiving) {
            return "clients";
        }
        if (x->waited != y->waited) {
            return "waited";
        }
        if (!side_params_equal(&x->params, &y->params)) {
            return "params";
        }
    }
    if (a->num_buffers && memcmp(a->buffers, b->buffers,
                                 a->num_buffers * sizeof(*a->buffers))) {
        return "buffers";
    }
    if (a->data_size && memcmp(a->data, b->data, a->data_size)) {
        return "data";
    }
    return NULL;
}

static void side_restore(Side *s, const SpiceFlowSaved *from)
{
    const SpiceFlowSaved *saved = from;
    SpiceFlowSaved carried;
    char *error = NULL;
    const char *why;

    if (s->play->carry) {
        why = s->play->carry(s->play->carry_opaque, from, &carried);
        if (why) {
            side_fail(s, "on its way: %s", why);
            return;
        }
        saved = &carried;
    }
    if (s->is_model) {
        flow_model_restore(s->model, saved, s->now);
    } else if (!spice_flow_restore(s->flow, saved, s->now, &error)) {
        side_fail(s, "restore refused a good state: %s", error);
        g_free(error);
    }
    if (saved == &carried) {
        spice_flow_saved_clear(&carried);
    }
}

static void side_restored_same(Side *s, const SpiceFlowSaved *saved)
{
    SpiceFlowSaved again;
    const char *what;

    side_save(s, &again);
    what = side_saved_differ(saved, &again);
    if (what) {
        side_fail(s, "saved, restored and saved again, and %s differs", what);
    }
    spice_flow_saved_clear(&again);
}

/* The clients of a state are there now, and away. */
static void who_restored(Side *s, const SpiceFlowSavedClient *saved, Who *old)
{
    unsigned id = saved->params.id;
    Who *w = who_new(s, id);

    s->who[id] = w;
    w->away = true;
    w->fc = saved->params.flow_control;
    w->window = w->fc ? saved->params.window : 0;
    w->view = w->fc ? saved->tokens : 0;
    w->receiving = saved->receiving != 0;
    w->stale = saved->receiving == 2;
    if (old) {
        w->view = old->view;
        w->stuck = old->stuck;
        w->delivered = old->delivered;
        w->next_all = old->next_all;
        w->next_own = old->next_own;
        w->any_all = old->any_all;
        w->any_own = old->any_own;
        w->got = old->got;
    }
    w->c = s->is_model ? (void *)flow_model_client_find(s->model, id)
                       : (void *)spice_flow_client_find(s->flow, id);
    if (!w->c) {
        side_fail(s, "client %c was not restored", 'a' + id - 1);
    }
}

void side_move(Side *s, unsigned delivers)
{
    Who *old[FLOW_PLAY_CLIENTS + 1] = { NULL };
    SpiceFlow *flow = s->flow;
    FlowModel *model = s->model;
    SpiceFlowSaved saved;

    if (s->running) {
        s->running = false;
        DEVICE(s, stop, s->now);
    }
    if (!side_is_open(s) || s->running) {
        return;         /* stop's callbacks can do that */
    }
    side_save(s, &saved);
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        Who *w = s->who[i];

        if (w && !w->away) {
            w->delivered = client_out(w, delivers);
        }
        old[i] = w;
    }
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        if (old[i]) {
            who_forget(old[i]);
        }
    }
    s->flow = NULL;
    s->model = NULL;
    side_new(s);
    s->now += 5;        /* another host's clock */
    side_restore(s, &saved);
    side_restored_same(s, &saved);
    for (uint32_t i = 0; i < saved.num_clients; i++) {
        who_restored(s, &saved.clients[i], old[saved.clients[i].params.id]);
    }
    spice_flow_close(flow);
    flow_model_close(model);
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        if (old[i]) {
            who_drop_kept(old[i]);
        }
    }
    spice_flow_saved_clear(&saved);
}

/* The target takes the state and fails; the source has not noticed. */
void side_return(Side *s)
{
    SpiceFlow *flow = s->flow;
    FlowModel *model = s->model;
    SpiceFlowSaved saved;

    side_save(s, &saved);
    side_new(s);
    side_restore(s, &saved);
    spice_flow_close(s->flow);
    flow_model_close(s->model);
    s->flow = flow;
    s->model = model;
    side_restored_same(s, &saved);
    spice_flow_saved_clear(&saved);
}

void side_snap(Side *s)
{
    if (s->has_snapshot) {
        spice_flow_saved_clear(&s->snapshot);
    }
    side_save(s, &s->snapshot);
    s->snapshot_at = s->at;
    s->has_snapshot = true;
}

void side_revert(Side *s)
{
    if (!s->has_snapshot) {
        return;
    }
    if (s->running) {
        s->running = false;
        DEVICE(s, stop, s->now);
    }
    if (!side_is_open(s) || s->running || !s->has_snapshot) {
        return;
    }
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        Who *w = s->who[i];

        if (w) {
            who_forget(w);
            who_drop_kept(w);
        }
    }
    side_restore(s, &s->snapshot);
    side_restored_same(s, &s->snapshot);
    for (uint32_t i = 0; i < s->snapshot.num_clients; i++) {
        who_restored(s, &s->snapshot.clients[i], NULL);
    }
    s->at = s->snapshot_at;
    memset(s->any, true, sizeof(s->any));
}

/*
 * A damaged state is refused with a word about it and changes nothing, or it
 * is a possible state by chance, and then the machine works with it.
 */
void side_bad(Side *s, uint32_t seed)
{
    SpiceFlowSaved saved, before, after;
    SpiceFlow *flow = s->flow;
    char *error = NULL;
    bool good;
    const char *what;
    uint8_t *at;
    size_t size;

    if (s->is_model) {
        return;
    }
    side_save(s, &saved);
    switch (seed % 4) {
    case 0:
        at = (uint8_t *)&saved;
        size = offsetof(SpiceFlowSaved, num_clients);
        break;
    case 1:
        at = (uint8_t *)saved.clients;
        size = saved.num_clients * sizeof(*saved.clients);
        break;
    case 2:
        at = (uint8_t *)saved.buffers;
        size = saved.num_buffers * sizeof(*saved.buffers);
        break;
    default:
        at = (uint8_t *)&saved.data_size;
        size = sizeof(saved.data_size);
        break;
    }
    seed /= 4;
    if (size) {
        at[seed / 16 % size] ^= 1 << (seed & 7);
        if (seed & 8) {
            at[seed / 16 % size] = 0xff;
        }
    }
    /* flow_control is a bool: only 0 and 1 are values */
    for (uint32_t i = 0; i < saved.num_clients; i++) {
        uint8_t raw;

        memcpy(&raw, &saved.clients[i].params.flow_control, 1);
        saved.clients[i].params.flow_control = false;
        if (raw) {
            saved.clients[i].params.flow_control = true;
        }
    }
    side_new(s);
    side_save(s, &before);
    good = spice_flow_restore(s->flow, &saved, s->now, &error);
    side_save(s, &after);
    what = side_saved_differ(&before, &after);
    if (!good && what) {
        side_fail(s, "a refused state has changed %s", what);
    }
    if (good) {
        /* what save() would not have written like this it writes so now */
        side_restore(s, &after);
        side_restored_same(s, &after);
    }
    if (!good && (!error || !*error)) {
        side_fail(s, "a state was refused without a word");
    }
    what = spice_flow_check(s->flow);
    if (good && what) {
        side_fail(s, "restored, and it does not hold that %s", what);
    }
    g_free(error);
    spice_flow_close(s->flow);
    s->flow = flow;
    spice_flow_saved_clear(&saved);
    spice_flow_saved_clear(&before);
    spice_flow_saved_clear(&after);
}
