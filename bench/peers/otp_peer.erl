%% One round of the workloads with Erlang/OTP; prints the figures as JSON. Run by bench/supervisors.py:
%% otp_peer:main([Calls, Casts, Spawns, Starts, Restarts, Memory, Children, Processes, Queued]).
-module(otp_peer).
-behaviour(gen_server).
-export([main/1, start_link/1, init/1, handle_call/3, handle_cast/2, handle_continue/2, handle_info/2]).

start_link(Arg) -> gen_server:start_link(?MODULE, Arg, []).

init({supervisor, Flags, Children}) -> {ok, {Flags, Children}};
init({crash, Tester, Counter}) -> {ok, {Tester, Counter}, {continue, crash}};
init(_) -> {ok, idle}.

handle_call(Request, _From, State) -> {reply, Request, State}.
handle_cast(_, State) -> {noreply, State}.
handle_info(_, State) -> {noreply, State}.

handle_continue(crash, {Tester, Counter} = State) ->
    case counters:get(Counter, 1) of
        0 -> Tester ! restarted, {noreply, State};
        _ -> counters:sub(Counter, 1, 1), exit(crash)
    end.

main(Args) ->
    [Calls, Casts, Spawns, Starts, Restarts, Memory, Children, Processes, Queued] = Args,
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    Figures = [
        {calls, calls(Calls)},
        {calls_of_many, calls_of_many(100, Calls div 100)},
        {casts, casts(Casts)},
        {spawns, rate(Spawns, fun() -> {_, Ref} = spawn_monitor(fun() -> ok end), down(Ref) end)},
        {starts, rate(Starts, fun() -> {ok, P} = gen_server:start(?MODULE, [], []), gen_server:stop(P) end)},
        {restarts, restarts(Restarts)},
        {memory, memory(Memory)},
        {stop_dynamic, stop_dynamic(Children)},
        {stop_static, stop_static(Children)},
        {calls_beside_10, beside(10, Calls)},
        {calls_beside_1000, beside(1000, Calls)},
        {calls_beside_many, beside(Processes, Calls)},
        {calls_queued, in_process(fun() -> [self() ! N || N <- lists:seq(1, Queued)], calls(Calls) end)}
    ],
    io:format("{~s}~n", [lists:join(", ", [io_lib:format("\"~s\": ~f", [Name, float(F)]) || {Name, F} <- Figures])]),
    halt().

seconds(Fun) ->
    Before = erlang:monotonic_time(nanosecond),
    Fun(),
    (erlang:monotonic_time(nanosecond) - Before) / 1.0e9.

repeat(0, _) -> ok;
repeat(N, Fun) -> Fun(), repeat(N - 1, Fun).

rate(Count, Fun) -> Count / seconds(fun() -> repeat(Count, Fun) end).

down(Ref) -> receive {'DOWN', Ref, _, _, _} -> ok end.

in_process(Fun) ->
    Me = self(),
    {_, Ref} = spawn_monitor(fun() -> Me ! {figure, Fun()} end),
    receive {figure, Figure} -> down(Ref), Figure end.

calls(Count) ->
    {ok, P} = gen_server:start(?MODULE, [], []),
    Rate = rate(Count, fun() -> gen_server:call(P, 1) end),
    gen_server:stop(P),
    Rate.

calls_of_many(Callers, Count) ->
    {ok, P} = gen_server:start(?MODULE, [], []),
    Call = fun() -> repeat(Count, fun() -> gen_server:call(P, 1, infinity) end) end,
    Seconds = seconds(fun() ->
        Refs = [element(2, spawn_monitor(Call)) || _ <- lists:seq(1, Callers)],
        lists:foreach(fun down/1, Refs)
    end),
    gen_server:stop(P),
    Callers * Count / Seconds.

casts(Count) ->
    {ok, P} = gen_server:start(?MODULE, [], []),
    Count / seconds(fun() -> repeat(Count, fun() -> gen_server:cast(P, 1) end), gen_server:call(P, 0, infinity) end).

child(Id, Arg) -> #{id => Id, start => {?MODULE, start_link, [Arg]}, shutdown => 5000}.

restarts(Count) ->
    Counter = counters:new(1, []),
    counters:put(Counter, 1, Count),
    Arg = {supervisor, #{intensity => Count, period => 1000}, [child(crasher, {crash, self(), Counter})]},
    Seconds = seconds(fun() ->
        {ok, _} = supervisor:start_link(?MODULE, Arg),
        receive restarted -> ok end
    end),
    Count / Seconds.

memory(Count) ->
    Pids = [begin {ok, P} = gen_server:start(?MODULE, [], []), P end || _ <- lists:seq(1, Count)],
    Sum = lists:sum([element(2, process_info(P, memory)) || P <- Pids]),
    lists:foreach(fun gen_server:stop/1, Pids),
    Sum / Count.

stop(Supervisor) ->
    Ref = monitor(process, Supervisor),
    seconds(fun() -> exit(Supervisor, shutdown), down(Ref) end).

stop_dynamic(Count) ->
    {ok, S} = supervisor:start_link(?MODULE, {supervisor, #{strategy => simple_one_for_one}, [child(any, idle)]}),
    repeat(Count, fun() -> {ok, _} = supervisor:start_child(S, []) end),
    stop(S).

stop_static(Count) ->
    Children = [child(N, idle) || N <- lists:seq(1, Count)],
    {ok, S} = supervisor:start_link(?MODULE, {supervisor, #{}, Children}),
    stop(S).

beside(Processes, Calls) ->
    Pids = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, Processes)],
    Rate = calls(Calls),
    [P ! stop || P <- Pids],
    Rate.
