;;; testing.scm --- the tests that a policy file carries, and samples for them.
;;;
;;; The host runs a file's tests when it loads the file, and refuses the tree
;;; when one fails, naming the file, the sentence, what was expected and what came.
;;; `repomind-run test` runs them alone and shows each with its time.

(require-builtin repomind/host)
(provide test-module check-equal? check-true check-property
         sample-region sample-client sample-record
         sample-link sample-observation sample-sibling
         sample-world sample-clients
         all-classes all-laws all-bases all-purposes all-states
         any-of any-number any-flag any-list
         any-region any-client any-record any-link any-observation any-siblings)

;; From the host:

;;@doc (check-equal? "sentence" found expected)
;; A test: holds when both are equal. Gives nothing.
;; > (check-equal? "one and one" (+ 1 1) 2)

;;@doc (check-true "sentence" found)
;; A test: holds for anything but #f. Gives nothing.
;; > (check-true "two is even" (even? 2))

;;@doc (all-classes)
;; Every class of data, as symbols.
;; > (car (all-classes))
;; = public

;;@doc (all-laws)
;; Every body of law that the runtime tells apart, as symbols.
;; > (cadr (all-laws))
;; = eea

;;@doc (all-bases)
;; Every legal basis, as symbols.
;; > (car (all-bases))
;; = unstated

;;@doc (all-purposes)
;; Every purpose, as symbols.
;; > (car (all-purposes))
;; = service

;;@doc (all-states)
;; Every state of health that a region can be in, as symbols.
;; > (all-states)
;; = (joining ready suspect down catching-up degraded draining evacuated)

;;@doc
;; (test-module "name" check …): the checks, in order, in a scope of their own.
;; > (test-module "sums" (check-equal? "one and one" (+ 1 1) 2))
(define-syntax test-module
  (syntax-rules ()
    [(_ name body ...) (let () (begin-tests name) body ... (end-tests))]))

;;@doc
;; (check-property "sentence" ([name value] …) body …): the body must be true in each of 100
;; cases, which the any-… functions make. The cases are the same at every load; one that
;; does not hold is made as simple as it gets and shown as forms to paste.
;; > (check-property "doubling makes even" ([n (any-number 0 1000)]) (even? (* 2 n)))
(define-syntax check-property
  (syntax-rules ()
    [(_ sentence ([name value] ...) body ...)
     (run-property sentence
                   (lambda ()
                     (let* ([name value] ...)
                       (case-values (list (list 'name name) ...))
                       body ...)))]))

(define (run-property sentence one-case)
  (begin-property sentence)
  (try-cases one-case)
  (end-property))

(define (try-cases one-case)
  (when (next-case)
    (with-handler (lambda (raised) (case-raised (error-object-message raised)))
                  (case-result (one-case)))
    (try-cases one-case)))

;;@doc
;; One of the list, inside check-property. Counterexamples prefer those that stand first.
;; > (check-property "one of them" ([x (any-of '(a b))]) (member x '(a b)))
(define (any-of items)
  (list-ref items (choose (length items))))

;;@doc
;; A whole number from low to high, both included. Counterexamples prefer low ones.
;; > (check-property "a die" ([n (any-number 1 6)]) (<= 1 n 6))
(define (any-number low high)
  (+ low (choose (+ 1 (- high low)))))

;;@doc
;; #f or #t.
;; > (check-property "yes or no" ([yes (any-flag)]) (or yes (not yes)))
(define (any-flag)
  (any-of '(#f #t)))

;;@doc
;; A list of none to `most` items, each made by (make-item).
;; > (check-property "short" ([l (any-list 3 (lambda () (any-number 0 9)))]) (<= (length l) 3))
(define (any-list most make-item)
  (let loop ([left (any-number 0 most)])
    (if (= left 0) '() (cons (make-item) (loop (- left 1))))))

;;@doc
;; A region that no file describes. Its law follows from #:jurisdiction, which
;; is the country unless given; #:rtts is a list such as ((us-east . 70.0)), in ms.
;; > (region-law (sample-region 'eu-west #:country "IE"))
;; = eea
(define (sample-region id
                       #:country [country "US"]
                       #:jurisdiction [jurisdiction #f]
                       #:state [state 'ready]
                       #:primary [primary #f]
                       #:features [features '(full-api websockets)]
                       #:max-instances [max-instances 50]
                       #:latitude [latitude 0.0]
                       #:longitude [longitude 0.0]
                       #:rtts [rtts '()])
  (make-sample-region id country (or jurisdiction country) state primary features
                      max-instances latitude longitude rtts))

;;@doc
;; A group of clients: those of one country, or of none known (#:country #f).
;; > (client-country (sample-client #:country "DE" #:continent "EU"))
;; = "DE"
(define (sample-client #:country [country #f]
                       #:continent [continent #f]
                       #:latitude [latitude #f]
                       #:longitude [longitude #f])
  (make-sample-client country continent latitude longitude))

;;@doc
;; One residency case.
;; > (record-class (sample-record #:class 'health #:law 'eea))
;; = health
(define (sample-record #:class [class 'operational]
                       #:law [law 'none]
                       #:basis [basis 'unstated]
                       #:purpose [purpose 'service])
  (make-sample-record class law basis purpose))

;;@doc
;; A replication link whose oldest unconfirmed record is #:lag ms old.
;; > (link-lag (sample-link #:lag 7000))
;; = 7000
(define (sample-link #:lag [lag 0])
  (make-sample-link lag))

;;@doc
;; What one peer saw of a region in its window of probes.
;; > (observation-probes (sample-observation))
;; = 10
(define (sample-observation #:probes [probes 10]
                            #:losses [losses 0]
                            #:losses-in-a-row [losses-in-a-row 0])
  (make-sample-observation probes losses losses-in-a-row))

;;@doc
;; One of several concurrent writes of a key. #:time is in ms since 1970.
;; > (sibling-region (sample-sibling #:region 'eu-west))
;; = eu-west
(define (sample-sibling #:region [region 'us-east]
                        #:time [time 0]
                        #:value [value ""]
                        #:deleted [deleted #f]
                        #:index [index 0])
  (make-sample-sibling region time value deleted index))

;; Id, country, latitude, longitude.
(define places
  '((us-east "US" 38.9 -77.4) (eu-west "IE" 53.3 -6.3) (ap-southeast "SG" 1.4 103.8)
    (eu-central "DE" 50.1 8.7) (sa-east "BR" -23.5 -46.6)))

(define (placed place)
  (sample-region (car place) #:country (cadr place) #:primary (equal? (car place) 'us-east)
                 #:latitude (caddr place) #:longitude (cadddr place)))

;;@doc
;; Five regions on four continents, the first of them the primary, all of them well.
;; > (region-ids (sample-world))
;; = (us-east eu-west ap-southeast eu-central sa-east)
(define (sample-world) (map placed places))

;;@doc
;; Clients on every continent, and some of no known place.
;; > (map client-country (sample-clients))
;; = (#false "US" "DE" "SG" "IN" "BR" "ZA" "AU")
(define (sample-clients)
  (cons (sample-client)
        (map (lambda (row)
               (sample-client #:country (car row) #:continent (cadr row)
                              #:latitude (caddr row) #:longitude (cadddr row)))
             '(("US" "NA" 39.8 -98.6) ("DE" "EU" 51.2 10.4) ("SG" "AS" 1.4 103.8) ("IN" "AS" 21.0 78.0)
               ("BR" "SA" -10.0 -52.0) ("ZA" "AF" -29.0 24.0) ("AU" "OC" -25.0 134.0)))))

;;@doc
;; One of `sample-world`, in any state and of any size.
;; > (check-property "it has a state" ([r (any-region)]) (member (region-state r) (all-states)))
(define (any-region)
  (define place (any-of places))
  (sample-region (car place) #:country (cadr place) #:state (any-of (all-states)) #:primary (any-flag)
                 #:max-instances (any-number 1 100) #:latitude (caddr place) #:longitude (cadddr place)))

;;@doc
;; One of `sample-clients`.
;; > (check-property "it may have a country" ([c (any-client)]) (or (not (client-country c)) (string? (client-country c))))
(define (any-client) (any-of (sample-clients)))

;;@doc
;; One case of the residency space.
;; > (check-property "it has a class" ([r (any-record)]) (member (record-class r) (all-classes)))
(define (any-record)
  (sample-record #:class (any-of (all-classes)) #:law (any-of (all-laws))
                 #:basis (any-of (all-bases)) #:purpose (any-of (all-purposes))))

;;@doc
;; A link with up to ten minutes of lag.
;; > (check-property "at most ten minutes" ([l (any-link)]) (<= (link-lag l) 600000))
(define (any-link) (sample-link #:lag (any-number 0 600000)))

;;@doc
;; What a peer may have seen: no more losses than probes, no longer a run than losses.
;; > (check-property "no more losses than probes" ([o (any-observation)]) (<= (observation-losses o) (observation-probes o)))
(define (any-observation)
  (define probes (any-number 0 64))
  (define losses (any-number 0 probes))
  (sample-observation #:probes probes #:losses losses #:losses-in-a-row (any-number 0 losses)))

;;@doc
;; One to five concurrent writes.
;; > (check-property "at least one" ([s (any-siblings)]) (not (null? s)))
(define (any-siblings)
  (let loop ([left (any-number 0 4)] [at 0])
    (define deleted (any-flag))
    (define sibling
      (sample-sibling #:region (any-of '(us-east eu-west ap-southeast)) #:time (* 1000 (any-number 0 3))
                      #:value (if deleted "" (any-of '("" "a\n" "b\n" "b\na\n"))) #:deleted deleted #:index at))
    (if (= left 0) (list sibling) (cons sibling (loop (- left 1) (+ at 1))))))
